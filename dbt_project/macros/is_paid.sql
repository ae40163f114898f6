{# The one definition of revenue: orders in these states count. The test on revenue uses it too. #}
{% macro is_paid(status) -%}
    {{ status }} in ({% for paid in var('paid_statuses') %}'{{ paid }}'{% if not loop.last %}, {% endif %}{% endfor %})
{%- endmacro %}

{# The day of a moment, in UTC: the same day whatever the session's time zone is. #}
{% macro day_of(moment) -%}
    cast({{ moment }} at time zone 'UTC' as date)
{%- endmacro %}
