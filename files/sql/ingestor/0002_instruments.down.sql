-- 0002_instruments: the ids are in the universe file and in the datalake.
DROP TABLE instruments;
