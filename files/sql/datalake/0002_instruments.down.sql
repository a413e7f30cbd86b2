-- 0002_instruments: the ids are also in the universe file and on every ingestor.
DROP TABLE recording, instruments;
