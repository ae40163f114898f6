-- Orders are added up first and joined after, so that a customer without any stays in.
with paid_orders as (
    select
        customer_id,
        count(*) as paid_orders,
        sum(total) as lifetime_value,
        min(ordered_at) as first_order_at,
        max(ordered_at) as last_order_at
    from {{ source('shop', 'orders') }}
    where {{ is_paid('status') }}
    group by customer_id
)

select
    customers.customer_id,
    customers.email,
    customers.full_name,
    customers.country,
    customers.segment,
    customers.signed_up_at,
    coalesce(paid_orders.paid_orders, 0) as paid_orders,
    coalesce(paid_orders.lifetime_value, 0) as lifetime_value,
    round(paid_orders.lifetime_value / paid_orders.paid_orders, 2) as average_order_value,
    paid_orders.first_order_at,
    paid_orders.last_order_at
from {{ source('shop', 'customers') }} as customers
left join paid_orders on paid_orders.customer_id = customers.customer_id
