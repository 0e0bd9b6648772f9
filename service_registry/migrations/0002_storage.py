"""What Django's models cannot say: how the hot tables are stored, and the sequence of epochs."""

from django.db import migrations

# Half-empty pages keep a heartbeat's new row beside the old one (a HOT update): no index is touched.
LEASES = """
ALTER TABLE service_registry_lease SET (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0)
"""
# One row that is written every second.
STATE = "ALTER TABLE service_registry_registrystate SET (fillfactor = 10, autovacuum_vacuum_threshold = 200)"


class Migration(migrations.Migration):
    dependencies = [("service_registry", "0001_initial")]

    operations = [
        migrations.RunSQL("CREATE SEQUENCE service_registry_epoch", "DROP SEQUENCE service_registry_epoch"),
        migrations.RunSQL(LEASES, "ALTER TABLE service_registry_lease RESET (fillfactor)"),
        migrations.RunSQL(STATE, "ALTER TABLE service_registry_registrystate RESET (fillfactor)"),
    ]
