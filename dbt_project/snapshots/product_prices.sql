{% snapshot product_prices %}
{{ config(
    unique_key='product_id',
    strategy='check',
    check_cols=['price', 'currency', 'active'],
    hard_deletes='invalidate',
    snapshot_meta_column_names={
        'dbt_valid_from': 'valid_from',
        'dbt_valid_to': 'valid_to',
        'dbt_scd_id': 'version_id',
        'dbt_updated_at': 'seen_at'
    }
) }}
select product_id, sku, name, price, currency, active
from {{ source('shop', 'products') }}
{% endsnapshot %}
