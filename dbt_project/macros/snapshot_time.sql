{# dbt would write naive times here; every other time in the warehouse knows its zone. #}
{% macro postgres__snapshot_get_time() -%}
    now()
{%- endmacro %}
