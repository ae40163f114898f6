-- A session belongs to the day on which it began, so one that crosses midnight counts once.
with sessions as (
    select
        session_id,
        {{ day_of('min(occurred_at)') }} as session_date,
        bool_or(type = 'product_view') as viewed,
        bool_or(type = 'add_to_cart') as added,
        bool_or(type = 'checkout') as checked_out,
        bool_or(type = 'purchase') as bought
    from {{ source('shop', 'web_events') }}
    group by session_id
)

select
    session_date,
    count(*) as sessions,
    count(*) filter (where viewed) as product_view_sessions,
    count(*) filter (where added) as cart_sessions,
    count(*) filter (where checked_out) as checkout_sessions,
    count(*) filter (where bought) as purchase_sessions,
    round(count(*) filter (where bought)::numeric / count(*), 4) as conversion_rate
from sessions
group by session_date
