-- A function with its owner's rights and the caller's search_path: the caller chooses what it runs (alter
-- function … set search_path = …).
select p.oid::regprocedure::text
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where n.nspname = any(%(schemas)s) and p.prosecdef
   and not exists (select from unnest(p.proconfig) s where s like 'search_path=%%')
