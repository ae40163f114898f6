{# After each model: say its columns and those of the relations that it reads, in the form that
   dagster-dbt turns into the asset's column schema and column lineage. Writes nothing. #}
{% macro log_columns() -%}
    {%- if execute -%}
        {%- set parents = {} -%}
        {%- for parent_id in model.depends_on.nodes -%}
            {%- set parent = graph.nodes.get(parent_id) or graph.sources.get(parent_id) -%}
            {%- if parent and parent.relation_name -%}
                {%- set relation = api.Relation.create(
                        database=parent.database, schema=parent.schema,
                        identifier=parent.get('identifier') or parent.alias) -%}
                {%- do parents.update({parent.relation_name: {'columns': columns_of(relation, {})}}) -%}
            {%- endif -%}
        {%- endfor -%}
        {%- do log(tojson({'columns': columns_of(this, model.columns), 'parents': parents,
                         'compiled': model.compiled_code}), info=true) -%}
    {%- endif -%}
{%- endmacro %}

{% macro columns_of(relation, described) -%}
    {%- set columns = {} -%}
    {%- for column in adapter.get_columns_in_relation(relation) -%}
        {%- set known = described.get(column.name, {}) -%}
        {%- do columns.update({column.name: {
                'data_type': column.data_type, 'description': known.get('description', '')}}) -%}
    {%- endfor -%}
    {{ return(columns) }}
{%- endmacro %}
