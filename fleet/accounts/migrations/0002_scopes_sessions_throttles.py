import django.contrib.postgres.fields
from django.db import migrations, models

SCOPES = ["read", "nodes", "upload", "campaigns", "approve", "audit", "admin"]
OF_ROLE = {"viewer": SCOPES[:1], "operator": SCOPES[:4], "approver": SCOPES[:6], "admin": SCOPES}


def scopes_from_roles(apps, schema_editor):
    token = apps.get_model("accounts", "ApiToken")
    for role, scopes in OF_ROLE.items():
        token.objects.filter(role=role).update(scopes=scopes)


def roles_from_scopes(apps, schema_editor):
    token = apps.get_model("accounts", "ApiToken")
    for role, scopes in OF_ROLE.items():
        token.objects.filter(scopes__contains=scopes[-1:]).update(role=role)


class Migration(migrations.Migration):
    dependencies = [("accounts", "0001_initial")]

    operations = [
        migrations.AddField("user", "must_change_password", models.BooleanField(default=False)),
        migrations.AddField("user", "session_generation", models.PositiveIntegerField(default=0)),
        migrations.AddField(
            "apitoken",
            "scopes",
            django.contrib.postgres.fields.ArrayField(
                base_field=models.CharField(
                    choices=[
                        ("read", "Read"),
                        ("nodes", "Nodes"),
                        ("upload", "Uploads"),
                        ("campaigns", "Campaigns"),
                        ("approve", "Approvals"),
                        ("audit", "Audit log"),
                        ("admin", "Accounts"),
                    ],
                    max_length=16,
                ),
                default=["read"],
                size=None,
            ),
            preserve_default=False,
        ),
        migrations.RunPython(scopes_from_roles, roles_from_scopes),
        migrations.RemoveConstraint("apitoken", "token_role_is_known"),
        migrations.RemoveField("apitoken", "role"),
        migrations.AddConstraint(
            "apitoken",
            models.CheckConstraint(
                condition=models.Q(scopes__contained_by=SCOPES, scopes__len__gt=0), name="token_scopes_are_known"
            ),
        ),
        migrations.CreateModel(
            "Throttle",
            [
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=64, unique=True)),
                ("rule", models.CharField(max_length=32)),
                ("username", models.CharField(blank=True, max_length=150)),
                ("address", models.CharField(max_length=64)),
                ("failures", models.PositiveIntegerField(default=0)),
                ("since", models.DateTimeField()),
                ("locked_until", models.DateTimeField(blank=True, null=True)),
            ],
            {"indexes": [models.Index(fields=["locked_until"], name="throttle_by_lock")]},
        ),
    ]
