"""Who acts when a command does: whoever may run it may do all of this."""

from service_registry.caller import Caller

OPERATOR = Caller("system:command", frozenset(), frozenset({"operate_instance", "manage_service"}))
