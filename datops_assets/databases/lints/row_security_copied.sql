-- A materialized view of a table with row security: it holds the rows that its owner saw, for all who may read
-- it.
select distinct n.nspname || '.' || c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  join pg_rewrite r on r.ev_class = c.oid
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
  join pg_class t on t.oid = d.refobjid
 where n.nspname = any(%(schemas)s) and c.relkind = 'm' and t.relrowsecurity
