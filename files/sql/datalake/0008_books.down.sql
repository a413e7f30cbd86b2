-- 0008_books: drops ways of looking at the history, none of it.
DROP FUNCTION book_at(integer, timestamptz, integer);
DROP FUNCTION book_at_update(integer, bigint, integer);
DROP VIEW book_levels;
