from django.db import migrations

from fleet.partitions import partition_sql

INDEXES = """
    CREATE INDEX link_event_undrained ON devices_linkevent (id) WHERE drained_at IS NULL;
    CREATE INDEX link_event_by_node ON devices_linkevent (node_id, id DESC);
"""


class Migration(migrations.Migration):
    dependencies = [("devices", "0001_initial")]
    operations = [
        migrations.RunSQL(partition_sql("devices_linkevent", INDEXES), migrations.RunSQL.noop),
        # Signs of life rewrite rows in place: room on each page keeps them off the index.
        migrations.RunSQL("ALTER TABLE devices_nodepresence SET (fillfactor = 70)", migrations.RunSQL.noop),
    ]
