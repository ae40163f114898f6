-- Two habits more of a login: at which hours it works, and which statements it runs (their queryid).

alter table datops.familiar drop constraint familiar_trait_check;
alter table datops.familiar
    add constraint familiar_trait_check check (trait in ('client', 'application', 'hour', 'statement'));
