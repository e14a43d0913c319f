from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("updates", "0006_deleted_nodes_leave_the_tallies")]
    operations = [
        # All patches until now are BSDIFF40 files, for the firmware that had a decoder.
        migrations.AddField(
            model_name="patch",
            name="decoder",
            field=models.CharField(
                choices=[("bsdiff", "bsdiff"), ("s", "S"), ("l", "L")], default="bsdiff", max_length=8
            ),
            preserve_default=False,
        ),
        migrations.AddField(model_name="patch", name="unneeded_since", field=models.DateTimeField(null=True)),
        migrations.RemoveConstraint(model_name="patch", name="patch_once_a_pair"),
        migrations.AddConstraint(
            model_name="patch",
            constraint=models.UniqueConstraint(
                fields=["base", "target", "decoder"], name="patch_once_a_pair_and_decoder"
            ),
        ),
        migrations.AddConstraint(
            model_name="patch",
            constraint=models.CheckConstraint(
                condition=Q(decoder__in=["bsdiff", "s", "l"]), name="patch_decoder_is_known"
            ),
        ),
        migrations.AddIndex(
            model_name="patch",
            index=models.Index(
                fields=["unneeded_since"], name="patch_to_collect", condition=Q(unneeded_since__isnull=False)
            ),
        ),
        migrations.AddField(
            model_name="campaign",
            name="full_image_allowed",
            field=models.BooleanField(default=True, help_text="where no patch leads to the new image"),
        ),
        migrations.AddField(
            model_name="campaign",
            name="patch_deadline_s",
            field=models.PositiveIntegerField(
                default=21600, help_text="fleet seconds that the campaign waits for its patches"
            ),
        ),
        migrations.AddField(
            model_name="campaign", name="patches_due_at", field=models.DateTimeField(blank=True, null=True)
        ),
    ]
