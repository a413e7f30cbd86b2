-- 0011_pruner: roles belong to the whole cluster and may serve its other databases, so they stay.
-- role: superuser
SELECT 1;
