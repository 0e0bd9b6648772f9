"""Registrations as other registries' clients send them, and random legal instance ids."""

import random
import string
from typing import Any
from urllib.parse import quote

# A service that Spring Cloud Alibaba exports for Dubbo states the URL of its metadata service as JSON.
DUBBO_METADATA_URL = (
    "dubbo://10.0.3.9:20880/com.alibaba.cloud.dubbo.service.DubboMetadataService?anyhost=true&application=provider"
    "&bind.ip=10.0.3.9&bind.port=20880&default.deprecated=false&default.dynamic=false&default.register=true"
    "&deprecated=false&dubbo=2.0.2&dynamic=true&generic=false&group=provider"
    "&interface=com.alibaba.cloud.dubbo.service.DubboMetadataService&methods=getAllServiceKeys,getServiceRestMetadata,"
    "getExportedURLs,getAllExportedURLs&pid=71183&qos.enable=false&release=2.7.8&revision=2.2.5.RELEASE&side=provider"
    "&timestamp=1617183423459&version=1.0.0"
)
RATE_LIMIT_KEY = "traefik.http.middlewares.checkout-rate-limit.ratelimit.sourcecriterion.requestheadername"

# Service, instance id, host, and other fields.
FLEETS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "Eureka": (
        *("ORDER-SERVICE", "DESKTOP-7QK2M1F:ORDER-SERVICE:8080", "desktop-7qk2m1f"),
        {"metadata": {"management.port": "8081", "jmx.port": "52210"}},
    ),
    "Spring Cloud Consul": (
        *("user-service", "user-service-8080-3f1c9a", "10.0.1.4"),
        {"tags": ["secure=false"], "metadata": {"gRPC_port": "9091"}},
    ),
    "Spring Cloud": ("inventory", "inventory-7d9c5b6f4-x2x9q:inventory:8080", "10.244.0.11", {}),
    "Dubbo interface": (
        *("providers:org.apache.dubbo.demo.DemoService:1.0.0", "10.0.3.9:20880", "10.0.3.9"),
        {"scheme": "tcp", "metadata": {"side": "provider", "methods": "sayHello,sayHelloAsync"}},
    ),
    "Dubbo application": (
        *("dubbo-provider", "10.0.3.9:20881", "10.0.3.9"),
        {"metadata": {"dubbo.metadata-service.urls": f'[ "{DUBBO_METADATA_URL}" ]', "dubbo.protocols.dubbo": "20881"}},
    ),
    "Nacos": (
        *("order-center", "10.0.5.21#8080#DEFAULT#DEFAULT_GROUP@@order-center", "10.0.5.21"),
        {"metadata": {"preserved.register.source": "SPRING_CLOUD"}},
    ),
    "Kubernetes pod": (
        *("checkout", "checkout-5f6b8d9c7-abcde", "10.244.1.17"),
        {"metadata": {"app.kubernetes.io/name": "checkout", "topology.kubernetes.io/zone": "eu-west-1a"}},
    ),
    "Kubernetes namespace and pod": ("payments", "shop/payments-5f6b8d9c7-abcde", "10.244.1.18", {}),
    "Kubernetes headless service": ("nginx", "web-0", "web-0.nginx.default.svc.cluster.local.", {}),
    "Consul sidecar": ("web-sidecar-proxy", "web-1-sidecar-proxy", "10.0.9.1", {"tags": ["v1", "primary"]}),
    "Registrator": ("redis", "docker-host-1:redis_cache_1:6379", "192.168.10.4", {"scheme": "tcp"}),
    "Docker Compose": ("worker", "worker-1", "shop_worker_1", {}),
    "Windows": ("print-spooler", "WIN_SRV_04", "WIN_SRV_04.corp.example", {}),
    "gRPC": ("helloworld.Greeter", "greeter-1", "greeter-1.example", {"scheme": "grpc"}),
    "AWS Cloud Map": ("billing", "i-0abcd1234ef567890", "2001:db8::17", {"zone": "eu-west-1a"}),
    "ECS": ("reports", "arn:aws:ecs:eu-west-1:123456789012:task/shop/0cc43cdb3bee4487b9a1", "10.0.7.31", {}),
    "Traefik labels": ("checkout-api", "checkout-api-1", "10.0.8.2", {"metadata": {RATE_LIMIT_KEY: "X-Tenant"}}),
    "PM2": ("api-gateway", "api-gateway@node-3.0", "node-3.example", {"weight": 50}),
}

ID_CHARACTERS = sorted(set(map(chr, range(0x21, 0x7F))) - set("\"'\\"))
# Where a path is decoded once too often, or split after it was decoded, these reach another instance or none.
TRICKY_IDS = (
    *(
        "a",
        "b",
        "a/",
        "a//",
        "a/b",
        "a/b/c",
        "a/status",
        "a/status/status",
        "a/../b",
        "a/./b",
        "status",
        "a%2Fb",
        "a%252Fb",
    ),
    *(
        "a%",
        "a%zz",
        "a%00",
        "a?b=c",
        "a?",
        "a#b",
        "a;b",
        "a+b",
        "a&namespace=other",
        "a=b",
        "a*",
        "a..",
        "a<b>",
        "a{b}",
    ),
    *("0" + "/" * 254, "Z" * 255, "10.0.5.21#8080#DEFAULT#DEFAULT_GROUP@@order-center", "http://10.0.0.1:8080/?a=b#c"),
)


def random_ids(count: int, seed: int) -> list[str]:
    """Return distinct legal ids, half of them of characters with a meaning in URLs."""
    chosen = random.Random(seed)
    found: set[str] = set()
    while len(found) < count:
        alphabet = chosen.choice((ID_CHARACTERS, "/%?#;+&=:@a2F"))
        length = chosen.choice((1, 2, 5, 20, 255))
        first = chosen.choice(string.ascii_letters + string.digits)
        found.add(first + "".join(chosen.choices(alphabet, k=chosen.randrange(length))))
    return sorted(found)


def path_of(*segments: str) -> str:
    """Return a path under /registry/ with each segment encoded."""
    return "/".join(("/registry", *(quote(segment, safe="") for segment in segments)))
