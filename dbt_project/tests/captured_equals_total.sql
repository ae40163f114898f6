{{ config(severity='warn', meta={'dagster': {'ref': {'name': 'daily_payments'}},
    'description': 'What was captured for an order is its total. No contract sees this: it takes two tables.'}) }}
-- Orders whose payment has not come yet are left out: payments arrive late.
select orders.order_id, orders.total, sum(payments.amount) as captured
from {{ source('shop', 'orders') }} as orders
inner join {{ source('shop', 'payments') }} as payments on payments.order_id = orders.order_id
inner join {{ ref('daily_payments') }} as days
    on days.payment_date = {{ day_of('payments.paid_at') }} and days.method = payments.method
where payments.status = 'captured'
group by orders.order_id, orders.total
having sum(payments.amount) <> orders.total
