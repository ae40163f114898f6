with sold as (
    select
        items.product_id,
        count(distinct items.order_id) as paid_orders,
        sum(items.quantity) as units_sold,
        sum(items.line_total) as revenue,
        min(orders.ordered_at) as first_sold_at,
        max(orders.ordered_at) as last_sold_at
    from {{ source('shop', 'order_items') }} as items
    inner join {{ source('shop', 'orders') }} as orders on orders.order_id = items.order_id
    where {{ is_paid('orders.status') }}
    group by items.product_id
)

select
    products.product_id,
    products.sku,
    products.name,
    products.category,
    products.price,
    products.currency,
    products.active,
    coalesce(sold.paid_orders, 0) as paid_orders,
    coalesce(sold.units_sold, 0) as units_sold,
    coalesce(sold.revenue, 0) as revenue,
    rank() over (
        partition by products.category order by coalesce(sold.revenue, 0) desc
    ) as rank_in_category,
    sold.first_sold_at,
    sold.last_sold_at
from {{ source('shop', 'products') }} as products
left join sold on sold.product_id = products.product_id
