"""Leases without a TTL, of permanent instances. No row is rewritten."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('service_registry', '0007_health_checks'),
    ]

    operations = [
        migrations.AlterField(
            model_name='lease',
            name='ttl_seconds',
            field=models.IntegerField(null=True),
        ),
        migrations.AddConstraint(
            model_name='lease',
            constraint=models.CheckConstraint(condition=models.Q(('ttl_seconds__isnull', False), models.Q(('check_failing__isnull', True), ('expired_at__isnull', True), ('protected_at__isnull', True)), _connector='OR'), name='lease_permanent_is_live'),
        ),
    ]
