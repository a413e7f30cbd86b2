-- 0008_channels: drops derivatives and liquidations with their coverage; the journals still hold their frames.
-- Refused while quotes of one-sided books are there, which the older schema cannot hold.
DO $$
BEGIN
    IF EXISTS (SELECT FROM quotes WHERE num_nulls(bid_price, bid_amount, ask_price, ask_amount) > 0) THEN
        RAISE EXCEPTION 'quotes of one-sided books are there: the schema before this migration cannot hold them'
            USING HINT = 'Delete the rows of quotes without bid or ask first, if they may be lost.';
    END IF;
END
$$;
DELETE FROM rejected_events WHERE channel IN ('derivatives', 'liquidations');
DELETE FROM coverage WHERE channel IN ('derivatives', 'liquidations');
ALTER TABLE rejected_events DROP CONSTRAINT rejected_events_channel_check;
ALTER TABLE rejected_events ADD CONSTRAINT rejected_events_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events'));
ALTER TABLE coverage DROP CONSTRAINT coverage_channel_check;
ALTER TABLE coverage ADD CONSTRAINT coverage_channel_check
CHECK (channel IN ('trades', 'quotes', 'book_events'));
ALTER TABLE load_batches
DROP COLUMN derivatives,
DROP COLUMN liquidations;
COMMENT ON COLUMN quotes.bid_price IS NULL;
COMMENT ON COLUMN quotes.ask_price IS NULL;
ALTER TABLE quotes
ALTER COLUMN bid_price SET NOT NULL,
ALTER COLUMN bid_amount SET NOT NULL,
ALTER COLUMN ask_price SET NOT NULL,
ALTER COLUMN ask_amount SET NOT NULL;
DROP TABLE liquidations;
DROP TABLE derivatives;
