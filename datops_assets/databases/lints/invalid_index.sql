-- An index that a failed `create index concurrently` left: it costs and is never used (reindex index
-- concurrently …).
select n.nspname || '.' || c.relname || ' ' || i.indexrelid::regclass::text
  from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and not i.indisvalid
