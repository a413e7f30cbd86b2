-- 0003_base_backups: forgets what came of backups.
DROP TABLE base_backups;
