"""The processes that run health checks, as they report themselves."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('service_registry', '0008_permanent_instances'),
    ]

    operations = [
        migrations.CreateModel(
            name='HealthChecker',
            fields=[
                ('name', models.TextField(db_collation='C', primary_key=True, serialize=False)),
                ('seen_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('cut_off', models.BooleanField()),
            ],
            options={
                'default_permissions': (),
            },
        ),
    ]
