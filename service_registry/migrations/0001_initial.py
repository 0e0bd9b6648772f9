"""The tables, and what Django's models cannot state: storage settings and the sequence of epochs."""

import django.contrib.auth.models
import django.contrib.auth.validators
import django.contrib.postgres.fields
import django.contrib.postgres.indexes
import django.db.models.deletion
import django.db.models.expressions
import django.db.models.functions.datetime
import django.utils.timezone
from django.db import migrations, models

# Half-empty pages keep a heartbeat's new row beside the old one (a HOT update), so that no index is touched.
LEASE_STORAGE = """
ALTER TABLE service_registry_lease SET (
    fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0)
"""
# One row that is written every second.
STATE_STORAGE = "ALTER TABLE service_registry_registrystate SET (fillfactor = 10, autovacuum_vacuum_threshold = 200)"


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
    ]

    operations = [
        migrations.CreateModel(
            name='SigningKeys',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('issuer', models.TextField(unique=True)),
                ('document', models.JSONField()),
                ('fetched_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                'verbose_name_plural': 'signing keys',
                'default_permissions': (),
            },
        ),
        migrations.CreateModel(
            name='Change',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('mark', models.CharField(max_length=8)),
                ('at', models.DateTimeField()),
                ('kind', models.TextField()),
                ('namespace', models.TextField(db_collation='C', null=True)),
                ('service_name', models.TextField(db_collation='C', null=True)),
                ('instance_id', models.TextField(db_collation='C', null=True)),
                ('instance', models.JSONField(null=True)),
                ('changed', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), null=True, size=None)),
                ('actor', models.TextField()),
                ('reason', models.TextField(null=True)),
                ('evidence', models.JSONField(null=True)),
            ],
            options={
                'default_permissions': ('view',),
                'indexes': [models.Index(models.F('namespace'), models.F('service_name'), django.db.models.expressions.CombinedExpression(models.F('id'), '*', models.Value(-1)), name='change_by_service'), models.Index(models.F('namespace'), models.F('service_name'), models.F('instance_id'), django.db.models.expressions.CombinedExpression(models.F('id'), '*', models.Value(-1)), name='change_by_instance')],
                'constraints': [models.CheckConstraint(condition=models.Q(('kind__in', ('log_started', 'service_created', 'service_deleted', 'owners_changed', 'registered', 'recovered', 'updated', 'status_changed', 'protected', 'released', 'expired', 'deregistered', 'purged'))), name='change_kind')],
            },
        ),
        migrations.CreateModel(
            name='RegistryState',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('observed_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('window_started_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('window_reason', models.TextField(default='start')),
                ('swept_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('suspended_at', models.DateTimeField(null=True)),
                ('suspended_until', models.DateTimeField(null=True)),
                ('suspension_budget_full_at', models.DateTimeField(null=True)),
                ('pruned_before', models.DateTimeField(null=True)),
                ('exceeded_limits', models.JSONField(db_default={})),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='registry_state_one_row')],
            },
        ),
        migrations.CreateModel(
            name='Reservation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('namespace', models.TextField(db_collation='C')),
                ('name', models.TextField(db_collation='C')),
                ('owners', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)),
                ('until', models.DateTimeField()),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.UniqueConstraint(fields=('namespace', 'name'), name='reservation_unique_name')],
            },
        ),
        migrations.CreateModel(
            name='Service',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('namespace', models.TextField(db_collation='C')),
                ('name', models.TextField(db_collation='C')),
                ('owners', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('released_at', models.DateTimeField(null=True)),
            ],
            options={
                'permissions': [('manage_service', 'Can change the owners of services, provision and delete them')],
                'default_permissions': ('view',),
                'indexes': [django.contrib.postgres.indexes.GinIndex(fields=['owners'], name='service_by_owner'), models.Index(condition=models.Q(('released_at__isnull', False)), fields=['released_at'], name='service_released')],
                'constraints': [models.UniqueConstraint(fields=('namespace', 'name'), name='service_unique_name'), models.CheckConstraint(condition=models.Q(('owners__len__gte', 1), ('owners__len__lte', 8)), name='service_owner_count')],
            },
        ),
        migrations.CreateModel(
            name='Instance',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('instance_id', models.TextField(db_collation='C')),
                ('host', models.TextField()),
                ('port', models.IntegerField()),
                ('scheme', models.TextField(default='http')),
                ('zone', models.TextField(null=True)),
                ('weight', models.IntegerField(default=100)),
                ('tags', django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), default=list, size=None)),
                ('metadata', models.JSONField(default=dict)),
                ('reported_status', models.TextField(default='UP')),
                ('registered_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('registered_by', models.TextField()),
                ('pending_status', models.TextField(null=True)),
                ('status_minute_at', models.DateTimeField(null=True)),
                ('status_changes', models.IntegerField(default=0)),
                ('service', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='instances', to='service_registry.service')),
            ],
            options={
                'permissions': [('register_instance', 'Can register instances of own services'), ('heartbeat_instance', 'Can renew leases of own services'), ('deregister_instance', 'Can deregister instances of own services'), ('operate_instance', 'Can deregister or override any instance'), ('override_status', 'Can override the status of own instances'), ('view_metrics', 'Can read the metrics')],
                'default_permissions': ('view',),
            },
        ),
        migrations.CreateModel(
            name='User',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('password', models.CharField(max_length=128, verbose_name='password')),
                ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                ('is_superuser', models.BooleanField(default=False, help_text='Designates that this user has all permissions without explicitly assigning them.', verbose_name='superuser status')),
                ('username', models.CharField(error_messages={'unique': 'A user with that username already exists.'}, help_text='Required. 150 characters or fewer. Letters, digits and @/./+/-/_ only.', max_length=150, unique=True, validators=[django.contrib.auth.validators.UnicodeUsernameValidator()], verbose_name='username')),
                ('first_name', models.CharField(blank=True, max_length=150, verbose_name='first name')),
                ('last_name', models.CharField(blank=True, max_length=150, verbose_name='last name')),
                ('email', models.EmailField(blank=True, max_length=254, verbose_name='email address')),
                ('is_staff', models.BooleanField(default=False, help_text='Designates whether the user can log into this admin site.', verbose_name='staff status')),
                ('is_active', models.BooleanField(default=True, help_text='Designates whether this user should be treated as active. Unselect this instead of deleting accounts.', verbose_name='active')),
                ('date_joined', models.DateTimeField(default=django.utils.timezone.now, verbose_name='date joined')),
                ('issuer', models.TextField(blank=True, null=True)),
                ('subject', models.TextField(blank=True, null=True)),
                ('groups', models.ManyToManyField(blank=True, help_text='The groups this user belongs to. A user will get all permissions granted to each of their groups.', related_name='user_set', related_query_name='user', to='auth.group', verbose_name='groups')),
                ('user_permissions', models.ManyToManyField(blank=True, help_text='Specific permissions for this user.', related_name='user_set', related_query_name='user', to='auth.permission', verbose_name='user permissions')),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('issuer', 'subject'), name='user_unique_identity')],
            },
            managers=[
                ('objects', django.contrib.auth.models.UserManager()),
            ],
        ),
        migrations.CreateModel(
            name='Lease',
            fields=[
                ('instance', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='lease', serialize=False, to='service_registry.instance')),
                ('heartbeat_at', models.DateTimeField()),
                ('ttl_seconds', models.IntegerField()),
                ('epoch', models.BigIntegerField()),
                ('beats', models.BigIntegerField(default=0)),
                ('expired_at', models.DateTimeField(null=True)),
                ('protected_at', models.DateTimeField(null=True)),
                ('protected_by', models.TextField(null=True)),
            ],
            options={
                'default_permissions': (),
                'constraints': [models.CheckConstraint(condition=models.Q(('ttl_seconds__gte', 5), ('ttl_seconds__lte', 86400)), name='lease_ttl_seconds'), models.CheckConstraint(condition=models.Q(('beats__gte', 0)), name='lease_beats'), models.CheckConstraint(condition=models.Q(('expired_at__isnull', True), ('protected_at__isnull', True), _connector='OR'), name='lease_one_state'), models.CheckConstraint(condition=models.Q(('protected_at__isnull', True), models.Q(('protected_by__in', ('fleet', 'small_fleet', 'service', 'all_late')), ('protected_by__isnull', False)), _connector='OR'), name='lease_protected_by_rule')],
            },
        ),
        migrations.CreateModel(
            name='Override',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('instance_id', models.TextField(db_collation='C')),
                ('status', models.TextField()),
                ('reason', models.TextField()),
                ('actor', models.TextField()),
                ('until', models.DateTimeField(null=True)),
                ('by_operator', models.BooleanField(db_default=False)),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('service', models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='overrides', to='service_registry.service')),
            ],
            options={
                'default_permissions': ('view',),
                'indexes': [models.Index(condition=models.Q(('until__isnull', False)), fields=['until'], name='override_until')],
                'constraints': [models.UniqueConstraint(fields=('service', 'instance_id'), name='override_unique_instance'), models.CheckConstraint(condition=models.Q(('status__in', ('UP', 'STARTING', 'DOWN', 'OUT_OF_SERVICE'))), name='override_status'), models.CheckConstraint(condition=models.Q(('reason', ''), _negated=True), name='override_has_reason')],
            },
        ),
        migrations.AddIndex(
            model_name='instance',
            index=models.Index(fields=['instance_id'], name='instance_by_id'),
        ),
        migrations.AddIndex(
            model_name='instance',
            index=models.Index(condition=models.Q(('pending_status__isnull', False)), fields=['status_minute_at'], name='instance_pending_status'),
        ),
        migrations.AddConstraint(
            model_name='instance',
            constraint=models.UniqueConstraint(fields=('service', 'instance_id'), name='instance_unique_id'),
        ),
        migrations.AddConstraint(
            model_name='instance',
            constraint=models.CheckConstraint(condition=models.Q(('port__gte', 1), ('port__lte', 65535)), name='instance_port'),
        ),
        migrations.AddConstraint(
            model_name='instance',
            constraint=models.CheckConstraint(condition=models.Q(('weight__gte', 0), ('weight__lte', 65535)), name='instance_weight'),
        ),
        migrations.AddConstraint(
            model_name='instance',
            constraint=models.CheckConstraint(condition=models.Q(('scheme__in', ('http', 'https', 'grpc', 'grpcs', 'tcp', 'udp'))), name='instance_scheme'),
        ),
        migrations.AddConstraint(
            model_name='instance',
            constraint=models.CheckConstraint(condition=models.Q(('reported_status__in', ('UP', 'STARTING', 'DOWN', 'OUT_OF_SERVICE'))), name='instance_reported_status'),
        ),
        migrations.RunSQL("CREATE SEQUENCE service_registry_epoch", "DROP SEQUENCE service_registry_epoch"),
        migrations.RunSQL(LEASE_STORAGE, migrations.RunSQL.noop),
        migrations.RunSQL(STATE_STORAGE, migrations.RunSQL.noop),
    ]
