-- What must come back besides rows: kind, name, owner, grants, and whatever else has to be the same.
-- Definitions that PostgreSQL prints anew (views, conditions of constraints) may read otherwise after a restore,
-- so only their presence counts. Objects of extensions come with their extension.

with own_schema as (
  select n.* from pg_namespace n
   where n.nspname !~ '^pg_(toast|temp)' and n.nspname not in ('pg_catalog', 'information_schema')
     and not exists (select from pg_depend e
                      where e.deptype = 'e' and e.objid = n.oid and e.classid = 'pg_namespace'::regclass)
), own_relation as (
  select c.*, format('%I.%I', n.nspname, c.relname) as label
    from pg_class c join own_schema n on n.oid = c.relnamespace
   where c.relpersistence <> 't'
     and not exists (select from pg_depend e
                      where e.deptype = 'e' and e.objid = c.oid and e.classid = 'pg_class'::regclass)
), grant_of_column as (
  select a.attrelid, a.attnum, string_agg(format('%s:%s', coalesce(nullif(x.grantee, 0)::regrole::text, 'public'),
                                                 x.privilege_type), ',' order by x.grantee::regrole::text collate "C",
                                          x.privilege_type) as grants
    from pg_attribute a, aclexplode(a.attacl) x where a.attacl is not null group by a.attrelid, a.attnum
), columns as (
  select a.attrelid, jsonb_agg(format('%I %s%s %s', a.attname, format_type(a.atttypid, a.atttypmod),
                                      case when a.attnotnull then ' not null' else '' end, g.grants)
                               order by a.attnum) as described
    from pg_attribute a left join grant_of_column g using (attrelid, attnum)
   where a.attnum > 0 and not a.attisdropped group by a.attrelid
), objects(kind, name, owner, acl, rest) as (
  select 'schema', format('%I', nspname), nspowner, coalesce(nspacl, acldefault('n', nspowner)), null::jsonb
    from own_schema
  union all
  select case relkind when 'r' then 'table' when 'p' then 'table' when 'v' then 'view' when 'f' then 'foreign table'
                      when 'm' then 'materialized view' when 'S' then 'sequence' else 'type' end,
         label, relowner, coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner)),
         case when relkind <> 'S' then (select described from columns where attrelid = own_relation.oid) end
    from own_relation where relkind in ('r', 'p', 'v', 'm', 'S', 'f', 'c')
  union all
  select 'index', c.label, c.relowner, null,
         jsonb_build_array(case when i.indisunique then 'unique' end, case when not i.indisvalid then 'not valid' end)
    from own_relation c join pg_index i on i.indexrelid = c.oid
  union all
  select 'constraint', format('%s: %I', c.label, k.conname), c.relowner, null,
         jsonb_build_array(k.contype, case when not k.convalidated then 'not valid' end)
    from own_relation c join pg_constraint k on k.conrelid = c.oid
  union all
  select 'trigger', format('%s: %I', c.label, t.tgname), c.relowner, null, jsonb_build_array(t.tgenabled)
    from own_relation c join pg_trigger t on t.tgrelid = c.oid where not t.tgisinternal
  union all
  select 'policy', format('%s: %I', c.label, p.polname), c.relowner, null,
         jsonb_build_array(p.polcmd, p.polpermissive, c.relrowsecurity, c.relforcerowsecurity)
    from own_relation c join pg_policy p on p.polrelid = c.oid
  union all
  select 'function', p.oid::regprocedure::text, p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)),
         jsonb_build_array(p.prosecdef, md5(p.prosrc))
    from pg_proc p join own_schema n on n.oid = p.pronamespace
   where not exists (select from pg_depend e
                      where e.deptype = 'e' and e.objid = p.oid and e.classid = 'pg_proc'::regclass)
  union all
  select 'type', format('%I.%I', n.nspname, t.typname), t.typowner, coalesce(t.typacl, acldefault('T', t.typowner)),
         (select jsonb_agg(l.enumlabel order by l.enumsortorder) from pg_enum l where l.enumtypid = t.oid)
    from pg_type t join own_schema n on n.oid = t.typnamespace
   where t.typtype in ('e', 'd', 'r')
     and not exists (select from pg_depend e
                      where e.deptype = 'e' and e.objid = t.oid and e.classid = 'pg_type'::regclass)
  union all
  select 'extension', e.extname, null, null, jsonb_build_array(n.nspname)
    from pg_extension e join pg_namespace n on n.oid = e.extnamespace
  union all
  select 'default privilege', format('%s %s %s', d.defaclrole::regrole,
                                     coalesce(nullif(d.defaclnamespace, 0)::regnamespace::text, '-'), d.defaclobjtype),
         d.defaclrole, d.defaclacl, null
    from pg_default_acl d
  union all
  select 'role', r.rolname, null, null,
         jsonb_build_array(r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication, r.rolbypassrls,
                           r.rolinherit, r.rolconnlimit,
                           (select jsonb_agg(g.rolname order by g.rolname collate "C")
                              from pg_auth_members m join pg_roles g on g.oid = m.roleid where m.member = r.oid))
    from pg_roles r where r.rolname !~ '^pg_'
)
select kind, name, owner::regrole::text,
       coalesce((select jsonb_agg(format('%s %s%s', coalesce(nullif(x.grantee, 0)::regrole::text, 'public'),
                                         x.privilege_type, case when x.is_grantable then ' *' end)
                                  order by x.grantee::regrole::text collate "C", x.privilege_type)
                   from aclexplode(acl) x), '[]'),
       rest
  from objects
