-- A function with its owner's rights that everybody may run (revoke execute on function … from public).
select p.oid::regprocedure::text
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
 where n.nspname = any(%(schemas)s) and p.prosecdef
   and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) x
                where x.grantee = 0 and x.privilege_type = 'EXECUTE')
