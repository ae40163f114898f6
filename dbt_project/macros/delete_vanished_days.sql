{# A day that lost all of its orders is in no batch, so no batch would replace it. Runs inside the
   transaction that inserts. #}
{% macro delete_vanished_days() -%}
    {%- if is_incremental() -%}
    delete from {{ this }} as gold
    where gold.order_date not in (
        select {{ day_of('ordered_at') }}
        from {{ source('shop', 'orders') }}
        where ordered_at is not null
    )
    {%- endif -%}
{%- endmacro %}
