from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("audit", "0002_append_only")]

    operations = [
        migrations.AddField("auditentry", "object_name", models.CharField(blank=True, default="", max_length=200), False),
        migrations.AlterField("auditentry", "object_id", models.CharField(blank=True, max_length=64)),
        migrations.AddIndex("auditentry", models.Index(fields=["actor", "-id"], name="audit_by_actor")),
        migrations.AddIndex("auditentry", models.Index(fields=["action", "-id"], name="audit_by_action")),
    ]
