-- A table with more dead rows than half of its live ones: autovacuum does not keep up, reads grow slow (vacuum
-- …).
select n.nspname || '.' || c.relname
  from pg_stat_all_tables s join pg_class c on c.oid = s.relid join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and s.n_dead_tup > 10000 and s.n_dead_tup > 0.5 * s.n_live_tup
