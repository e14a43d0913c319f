from django.db import migrations, models

import devices.models


class Migration(migrations.Migration):
    dependencies = [("devices", "0006_held_deliveries")]
    operations = [
        migrations.AddField(
            model_name="firmwarebuild",
            name="key_ids",
            field=models.JSONField(blank=True, default=list, validators=[devices.models._check_key_ids]),
        ),
    ]
