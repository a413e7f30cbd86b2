"""How ``tuned_restore`` restores a dump under settings that are never left behind."""
