-- An extension that is older than the one installed on the server (alter extension … update).
select name || ' ' || installed_version || ', there is ' || default_version from pg_available_extensions
 where installed_version <> default_version and cardinality(%(schemas)s::text[]) >= 0
