"""Receives signed events from other systems: data has changed, a batch has finished."""

from semcache.integrations.webhooks.app import WebhookEvent, webhook_app

__all__ = ["WebhookEvent", "webhook_app"]
