-- 0002_restore_drills: forgets all drills.
DROP TABLE restore_drills;
