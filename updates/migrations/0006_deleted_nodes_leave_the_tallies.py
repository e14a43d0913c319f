from django.db import migrations

# Whoever deletes a node deletes its node updates with it, also from an app that knows no campaign.
FORWARD = """
    CREATE FUNCTION updates_tally_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE updates_tally t SET count = t.count - d.number
        FROM (SELECT wave_id, state, count(*) AS number FROM gone GROUP BY wave_id, state) d
        WHERE t.wave_id = d.wave_id AND t.state = d.state;
        RETURN NULL;
    END $$;
    CREATE TRIGGER updates_tally_deleted AFTER DELETE ON updates_nodeupdate
        REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION updates_tally_deleted();
"""
BACKWARD = """
    DROP TRIGGER updates_tally_deleted ON updates_nodeupdate;
    DROP FUNCTION updates_tally_deleted();
"""


class Migration(migrations.Migration):
    dependencies = [("updates", "0005_campaign_core")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
