from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("updates", "0007_patch_by_decoder")]
    operations = [
        migrations.CreateModel(
            name="SigningKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key_id", models.CharField(max_length=8, unique=True)),
                ("public_key", models.CharField(max_length=64)),
                ("active", models.BooleanField(default=False)),
                ("added_at", models.DateTimeField()),
                ("retired_at", models.DateTimeField(null=True)),
            ],
            options={
                "ordering": ["id"],
                "constraints": [
                    models.UniqueConstraint(fields=["active"], condition=Q(active=True), name="one_active_signing_key"),
                    models.CheckConstraint(
                        condition=Q(active=False) | Q(retired_at__isnull=True), name="signing_key_active_or_retired"
                    ),
                ],
            },
        ),
    ]
