-- Where a source that keeps its place (a cursor column, a page of an API) goes on after a load.
-- The table of loads takes no part in what silver holds by it: it is written in the load's own transaction.

alter table datops.loads add column watermark text;
create index loads_by_watermark on datops.loads (table_id, load_id desc) where watermark is not null;
