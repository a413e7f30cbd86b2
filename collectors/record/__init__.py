"""The recorder: stamps every frame, journals it as received, and only then looks inside."""
