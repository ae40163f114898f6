-- A foreign key without index: each delete there reads this table whole.
select n.nspname || '.' || c.relname || ' ' || k.conname
  from pg_constraint k join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and k.contype = 'f'
   and not exists (select from pg_index i
                    where i.indrelid = k.conrelid and i.indpred is null
                      and (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)
