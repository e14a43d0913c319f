"""ApplicationService: applications and their HTTP integration."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlsplit

from chirpstack_api import api
from google.protobuf.empty_pb2 import Empty

from devices.simulator.chirpstack.access import Caller, by_name, page, rpc, times
from devices.simulator.chirpstack.network_server import NetworkServer
from devices.simulator.chirpstack.store import Store, invalid, parse_uuid, violates


class ApplicationService(api.ApplicationServiceServicer):
    def __init__(self, store: Store, network: NetworkServer) -> None:
        self.store, self._network = store, network

    @rpc
    def Create(self, request: api.CreateApplicationRequest, caller: Caller) -> api.CreateApplicationResponse:
        if not request.HasField("application"):
            raise invalid("application is missing")
        application = api.Application()
        application.CopyFrom(request.application)
        application.tenant_id = parse_uuid(application.tenant_id)
        caller.may(application.tenant_id, write=True)
        if not application.name:
            raise invalid("Validation error: name is not set")
        if application.tenant_id not in self.store.tenants.rows:
            raise violates("foreign key")
        application.id = str(uuid.uuid4())
        self.store.applications.add(application.id, application)
        return api.CreateApplicationResponse(id=application.id)

    @rpc
    def Get(self, request: api.GetApplicationRequest, caller: Caller) -> api.GetApplicationResponse:
        key = parse_uuid(request.id)
        caller.may_application(key)
        row = self.store.applications.get(key)
        return api.GetApplicationResponse(application=row.value, **times(row))

    @rpc
    def Update(self, request: api.UpdateApplicationRequest, caller: Caller) -> Empty:
        if not request.HasField("application"):
            raise invalid("application is missing")
        key = parse_uuid(request.application.id)
        caller.may_application(key, write=True)
        row = self.store.applications.get(key)
        if not request.application.name:
            raise invalid("Validation error: name is not set")
        changed = api.Application()
        changed.CopyFrom(request.application)
        changed.id, changed.tenant_id = key, row.value.tenant_id
        self.store.applications.change(key, changed)
        return Empty()

    @rpc
    def Delete(self, request: api.DeleteApplicationRequest, caller: Caller) -> Empty:
        key = parse_uuid(request.id)
        caller.may_application(key, write=True)
        devices = [eui for eui, row in self.store.devices.rows.items() if row.value.application_id == key]
        self.store.delete_application(key)
        for dev_eui in devices:
            self._network.forget(dev_eui)
        return Empty()

    @rpc
    def List(self, request: api.ListApplicationsRequest, caller: Caller) -> api.ListApplicationsResponse:
        tenant_id = parse_uuid(request.tenant_id)
        caller.may(tenant_id)
        rows = [row for row in self.store.applications.rows.values() if row.value.tenant_id == tenant_id]
        rows = by_name(rows, request.search)
        result = [
            api.ApplicationListItem(
                id=row.value.id, name=row.value.name, description=row.value.description, **times(row)
            )
            for row in page(rows, request.limit, request.offset)
        ]
        return api.ListApplicationsResponse(total_count=len(rows), result=result)

    @rpc
    def ListIntegrations(self, request: api.ListIntegrationsRequest, caller: Caller) -> api.ListIntegrationsResponse:
        """The global MQTT integration is always there."""
        key = parse_uuid(request.application_id)
        caller.may_application(key)
        kinds = [api.HTTP] if key in self.store.http_integrations.rows else []
        kinds.append(api.MQTT_GLOBAL)
        return api.ListIntegrationsResponse(
            total_count=len(kinds), result=[api.IntegrationListItem(kind=kind) for kind in kinds]
        )

    @rpc
    def CreateHttpIntegration(self, request: api.CreateHttpIntegrationRequest, caller: Caller) -> Empty:
        integration = self._parse(request, caller)
        if integration.application_id not in self.store.applications.rows:
            raise violates("foreign key")
        self.store.http_integrations.add(integration.application_id, integration)
        return Empty()

    @rpc
    def UpdateHttpIntegration(self, request: api.UpdateHttpIntegrationRequest, caller: Caller) -> Empty:
        integration = self._parse(request, caller)
        self.store.http_integrations.change(integration.application_id, integration)
        return Empty()

    @rpc
    def GetHttpIntegration(
        self, request: api.GetHttpIntegrationRequest, caller: Caller
    ) -> api.GetHttpIntegrationResponse:
        key = parse_uuid(request.application_id)
        caller.may_application(key)
        return api.GetHttpIntegrationResponse(integration=self.store.http_integrations.get(key).value)

    @rpc
    def DeleteHttpIntegration(self, request: api.DeleteHttpIntegrationRequest, caller: Caller) -> Empty:
        key = parse_uuid(request.application_id)
        caller.may_application(key, write=True)
        self.store.http_integrations.delete(key)
        return Empty()

    def _parse(self, request: Any, caller: Caller) -> api.HttpIntegration:
        if not request.HasField("integration"):
            raise invalid("integration is missing")
        integration = api.HttpIntegration()
        integration.CopyFrom(request.integration)
        integration.application_id = parse_uuid(integration.application_id)
        caller.may_application(integration.application_id, write=True)
        for url in map(str.strip, integration.event_endpoint_url.split(",")):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise invalid(f"Validation error: event_endpoint_url: {url!r} is not a URL")
        return integration
