-- Forgets what is protected, so that ingestors prune nothing until the next verification.
DROP FUNCTION protected_until();
DROP TABLE protections;
