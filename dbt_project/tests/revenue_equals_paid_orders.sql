{{ config(severity='error', meta={'dagster': {'ref': {'name': 'daily_revenue'}},
    'description': 'The revenue of each day in gold equals the paid orders of that day in silver.'}) }}
-- The days that differ. To build them again from nothing, run gold with full_refresh (docs/gold.md).
with silver as (
    select {{ day_of('ordered_at') }} as order_date, currency, sum(total) as revenue
    from {{ source('shop', 'orders') }}
    where {{ is_paid('status') }}
    group by 1, 2
)

select coalesce(gold.order_date, silver.order_date) as order_date, gold.revenue, silver.revenue as expected
from {{ ref('daily_revenue') }} as gold
full join silver on silver.order_date = gold.order_date and silver.currency is not distinct from gold.currency
where coalesce(gold.revenue, 0) <> coalesce(silver.revenue, 0)
