-- Two indexes of the same columns: one of them only costs.
select n.nspname || '.' || c.relname || ' ' || string_agg(i.indexrelid::regclass::text, ', ' order by i.indexrelid)
  from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s)
 group by n.nspname, c.relname, i.indrelid, i.indkey, i.indclass, i.indcollation, i.indoption,
       pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)
having count(*) > 1
