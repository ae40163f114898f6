-- A table without primary key: rows cannot be told apart, and change data capture needs one.
select n.nspname || '.' || c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and c.relkind in ('r', 'p') and not c.relispartition
   and not exists (select from pg_index i where i.indrelid = c.oid and i.indisprimary)
