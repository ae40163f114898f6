-- Other databases of the server that PUBLIC may connect to (revoke connect on database … from public).
select d.datname from pg_database d
 where d.datallowconn and not d.datistemplate and d.datname <> current_database()
   and cardinality(%(schemas)s::text[]) >= 0 and has_database_privilege('public', d.oid, 'connect')
