from django.db import migrations

from fleet.partitions import partition_sql

INDEXES = """
    CREATE INDEX update_event_by_campaign ON updates_updateevent (campaign_id, id DESC);
    CREATE INDEX update_event_by_node ON updates_updateevent (node_id, id DESC);
"""


class Migration(migrations.Migration):
    dependencies = [("updates", "0001_initial")]
    operations = [
        migrations.RunSQL(partition_sql("updates_updateevent", INDEXES), migrations.RunSQL.noop),
        migrations.RunSQL(
            "CREATE SEQUENCE updates_assignment_sequence", "DROP SEQUENCE updates_assignment_sequence"
        ),
    ]
