-- A view with its owner's rights: who may read the view needs none on its tables (alter view … set
-- (security_invoker = true)).
select n.nspname || '.' || c.relname
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = any(%(schemas)s) and c.relkind = 'v'
   and not coalesce((select option_value::bool from pg_options_to_table(c.reloptions)
                      where option_name = 'security_invoker'), false)
