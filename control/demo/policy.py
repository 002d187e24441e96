"""The demonstration's policy, as a platform team would write it."""

OWNERS = "{accountable: ana@demo.example, system: platform@demo.example, risk: risk@demo.example}"


def policy_text(port: int) -> str:
    """The policy for a service that listens on this loopback port."""
    return f"""\
exeat: 1
tenant: demo
credentials: {{ttl: 5m, max_ttl: 1h}}
connections:
  models: {{host: models.demo.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas/key, price: 0.01 USD}}
  tickets: {{host: tickets.demo.test, dial: "127.0.0.1:{port}", ca: ca.pem, secret: saas/key}}
accounts:
  support-agent:
    owners: {OWNERS}
    stage: autonomous
    limits:
      concurrency: 2
      rate: [{{connection: tickets, max: 3, per: minute, burst: 3}}]
      spend: [{{meter: price, max: 0.05 USD, per: day}}]
    rules:
      - {{id: read-tickets, allow: {{connection: tickets, methods: [GET], path: "/v1/tickets/{{id}}"}}}}
      - {{id: chat, allow: {{connection: models, methods: [POST], path: /v1/chat/completions}}}}
      - {{id: never-delete, deny: {{connection: "*", methods: [DELETE], path: "/**"}}}}
  writer-agent:
    owners: {OWNERS}
    stage: autonomous
    limits: {{concurrency: 2}}
    rules:
      - {{id: chat, allow: {{connection: models, methods: [POST], path: /v1/chat/completions}}}}
"""
