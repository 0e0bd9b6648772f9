"""The incarnation of an instance's process. A new column without a default rewrites no row."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('service_registry', '0005_denials'),
    ]

    operations = [
        migrations.AddField(
            model_name='lease',
            name='incarnation',
            field=models.TextField(null=True),
        ),
    ]
