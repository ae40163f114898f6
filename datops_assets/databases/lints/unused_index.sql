-- An index that no query has used since the statistics began, 30 days ago or more: it only costs (drop index …).
select n.nspname || '.' || c.relname || ' ' || i.indexrelid::regclass::text
  from pg_index i join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
  join pg_stat_all_indexes s on s.indexrelid = i.indexrelid
  join pg_stat_all_tables t on t.relid = i.indrelid
  join pg_stat_database d on d.datname = current_database()
 where n.nspname = any(%(schemas)s) and not i.indisunique and not i.indisprimary and s.idx_scan = 0
   and t.n_live_tup >= 1000
   and coalesce(d.stats_reset, pg_postmaster_start_time()) <= now() - make_interval(days => %(unused_days)s)
   and not exists (select from pg_constraint k where k.conindid = i.indexrelid)
