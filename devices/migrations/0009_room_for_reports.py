from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [("devices", "0008_compiled_networks")]
    operations = [
        # Reports change what a node holds: room on each page keeps a change of the standby image off the indexes.
        migrations.RunSQL("ALTER TABLE devices_node SET (fillfactor = 85)", migrations.RunSQL.noop),
    ]
